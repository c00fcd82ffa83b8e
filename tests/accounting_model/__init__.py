"""The accounting under every misfortune, in memory and from a seed: the real Ledger between two doubles of the edge.

`partition` is what brokers hold of one partition and `tables` what a store holds, each with the handle through which a
member reaches it; `content` makes what stands in a log, `storm` lets members live and die over it, and `verdict`
compares what they leave with the account of one undisturbed member. A seed is all there is to know of a schedule.
"""
