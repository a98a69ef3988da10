"""LightningModules: what is optimised and what is measured. One file per task; the data's targets choose."""

from cnnlab.task.attributes import FindAttributes
from cnnlab.task.chain import ReadChain
from cnnlab.task.classify import Classify
from cnnlab.task.regress import Regress

TASKS: dict[str, type[Classify]] = {
    "class": Classify,
    "attributes": FindAttributes,
    "values": Regress,
    "chain": ReadChain,
}
