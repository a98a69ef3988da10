"""What `cnnlab --help` says: groups, words and keys come from conf/."""

import textwrap

from cnnlab.config import default_words
from cnnlab.registry import CONF, available

USAGE = """\
cnnlab: does this change to the convolution help, by how much, at what cost,
and am I sure?

  cnnlab [train] KEY=VALUE ...   train a run; asked for again, resume or show it
  cnnlab -m KEY=V1,V2 ...        a sweep over every combination
  cnnlab list [GROUP]            the words of a group with their knobs
  cnnlab show KEY=VALUE ...      images as the network sees them: a picture
  cnnlab check KEY=VALUE ...     is it sound? gradient, data, overfitting, laws
  cnnlab bench CHOICE ...        costs: parameters, MACs, time, memory
  cnnlab report DIR ...          which variant won, and by how much
  cnnlab evaluate RUN ...        a run's metrics computed again; ensembles
  cnnlab diff RUN RUN            in what two runs differ
  cnnlab repro RUN               commit, packages and command of a run

  cnnlab conv=decoupled_tanh ortho_weight=0.1
  cnnlab -m 'conv=glob(*)' ortho_weight=0,0.1 'seed=range(5)'

Choices: GROUP=WORD, the default first; GROUP.KNOB=VALUE sets a knob
{choices}

Keys
{keys}

Flags
  --cfg job          print the configuration instead of running
  --config-dir DIR   your own YAML files: DIR/conv/mine.yaml makes conv=mine
  -m, --multirun     sweep
  --dry-run          list what would run, and what it would take
  --version          cnnlab's version
  --hydra-help       Hydra's other flags
  Completion: eval "$(cnnlab -sc install=bash)"
"""


def usage() -> str:
    defaults = default_words()
    choices = [
        _entry(group, ", ".join([word, *(other for other in available(group) if other != word)]))
        for group, word in defaults.items()
    ]
    return USAGE.format(choices="\n".join(choices), keys="\n".join(keys())).rstrip()


def keys() -> list[str]:
    """The root keys, with the comments that conf/config.yaml has for them."""
    entries = []
    for line in (CONF / "config.yaml").read_text().splitlines():
        key, comment = line.partition(": ")[0], line.partition("#")[2].strip()
        if comment and key.isidentifier():
            value = line.partition(": ")[2].partition("#")[0].strip()
            entries.append(_entry(f"{key}={value}", comment))
    return entries


def _entry(name: str, text: str) -> str:
    return textwrap.fill(text, 80, initial_indent=f"  {name:<18} ", subsequent_indent=" " * 21)
