"""The search: `cnnlab -m hydra/sweeper=search` looks for the values that serve best, on Optuna.

lines -> space -> trials (asked) -> runs -> values (told) -> narrower space -> ... -> summary
"""
