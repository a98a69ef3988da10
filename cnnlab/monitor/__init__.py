"""What looks inside a training: so far the pictures of its filters."""
