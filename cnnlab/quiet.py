"""What libraries say goes to a run's log.txt alone."""

import logging


def quiet_libraries() -> None:
    """Collect warnings and Lightning's messages in the root logger, to which each run adds its log.txt."""
    logging.captureWarnings(True)
    # Without a handler of the root's, Lightning, once imported, adds one that prints.
    logging.getLogger().addHandler(logging.NullHandler())
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).handlers.clear()
        logging.getLogger(library).propagate = True
    logging.getLogger("cnnlab").setLevel(logging.DEBUG)
