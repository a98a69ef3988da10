"""LightningModules: what is optimised and what is measured. One file per task."""
