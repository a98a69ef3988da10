"""The verb `bench`: what a convolution or a network costs, measured against the ordinary one.

command      arguments -> configurations x shapes -> a row each -> a table
duel         one variant against its baseline
stopwatch    two calls timed in turns
memory       the peak of a call
measurement  a row, and the table as a file
costs        the table on the terminal
"""
