"""Compare arms on the same data: interleaved rounds, each in a process of its own, and one record.

settings    settings of a comparison
data        which arms the data at hand allow; images reads their encoded images
plan        order of the rounds; session runs them, and collects their results
time_budget keep the time of a quick comparison
template    a process with all libraries imported, which is forked for each round
processes   starts it, and sets time limits; runners starts another one for each peer's environment
work        what a round's process does: measure epochs of an arm (epoch, page_cache), training steps (steps), or an
            upper bound (rooflines)
reference   PIL's pixels of all samples; identify finds out from pixels which samples an arm has yielded
kept        completed rounds on disk, from which an interrupted run resumes
describe    machine, data and arms, for the record
compare     run it all; command prints the result, and says what to do next
files       write record and tables
aggregate   put records of several runs together, if they are comparable
"""
