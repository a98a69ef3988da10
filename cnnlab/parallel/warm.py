"""Imported by the server that jobs are forked from: what each of them would import and read for itself.

Nothing here may compute with torch, whose threads do not survive a fork.
"""

import sklearn.datasets
import wandb.apis.public
import wandb.sdk.launch

from cnnlab import train
from cnnlab.config import default_words

default_words()

__all__ = ["sklearn", "train", "wandb"]
