"""Images in memory: sources (one file per format), the data module, batches, preprocessing, augmentation.

A source is any class whose constructor takes the knobs of its YAML, whose `load()` returns `(train, test)`,
each `(images, labels)`: uint8 (N, C, H, W) and int64 (N,), as tensors or numpy arrays, `test` or None; after
it `class_names` lists the classes. Where the labels are not classes its `targets` says what they are, as
targets.py has it, and `class_names` are the names of the attributes, of the values, or of a chain's labels.
Classes may have coarse labels: `superclasses`, a number for each. If a method `files()` lists what it reads,
the decoded data are kept on disk, and shared by all runs of the machine (cache.py). Nothing else is asked;
what a source gives is held against it (promise.py).
"""
