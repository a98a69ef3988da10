"""Many runs: each in a process of its own, none twice, and what is missing when asked again."""
