"""What looks inside a training: its layers, its filters, where it breaks, when it lags behind."""
