"""Write the report of a comparison: a self-contained HTML page, and the same tables as text and Markdown.

read      read a record and check it; schema checks JSON against the record's JSON Schema
facts     look up parts of a record, and format its figures
tables    the tables, and their forms as text and Markdown
svg       draw rows of marks, bars and lines on a common scale
plots     the plots; network draws the one over time, figure defines what belongs to a plot
changes   compare two records: what changed beyond the noise; comparable refuses records that differ otherwise
agreement check whether two records rank the arms the same, with medians within their intervals
html      escape text; tables, figures and lists as HTML
page      the page; page.css and plot.css have its style
picture   the throughput as a picture of its own
embed     embed records as JSON, within the page's limit of size
render    a report in all its forms

Text of records is data: the page, the terminal and Markdown escape it. Unlike the rest of `larder.bench`, this package
uses Python 3.9 and the standard library alone, so that `larder report` needs no image and no installation.
"""
