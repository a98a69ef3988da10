"""`cnnlab check OVERRIDES...`: does a configuration do what it says? The textbook's checks, in plain words.

    command   arguments -> a Subject -> the Finding of every check -> a table
    subject   what is looked at: data, the untrained task, that task after a few steps of the real Trainer
    watch     what a step did to every parameter
    finding   what a check answers: pass, warn, fail or skip, a figure, words

Every other module is one check, of its name: `check(subject) -> Finding`. A module added here is found.
"""
