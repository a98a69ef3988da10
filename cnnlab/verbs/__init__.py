"""What `cnnlab VERB` does: one file per verb without a package of its own, and what they share."""
