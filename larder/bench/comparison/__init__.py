"""Compare arms on the same data: interleaved rounds, each in a process of its own, and one record.

settings   settings of a comparison
data       which arms the data at hand allow
plan       order of the rounds
template   a process with all libraries imported, which is forked for each round; rounds starts it, and sets time limits
work       what a round's process does: measure epochs of an arm (epoch), or an upper bound (rooflines)
reference  PIL's pixels of all samples; identify finds out from pixels which samples an arm has yielded
kept       completed rounds on disk, from which an interrupted run resumes
compare    run it all
render     tables for the terminal and as Markdown
aggregate  put records of several runs together, if they are comparable
"""
