"""Benchmarks, run by `make bench`: each figure stands beside a ceiling measured in the same run.

    measure     the words: what is measured, against what, and which floor was promised
    runner      runs the compared subjects in turn, round by round
    report      the table, and JSON lines; page puts it into a page, plots draws
    fixtures    the harbor, the tasks and the bare loop that several themes share
    drain, threads, enqueue, latency, depth, codec, process    a theme each
    app, workers    worker processes, started by the command line as anybody would, and what they run
    arrivals    when their handlers began
    sqlite, postgres    the themes of one driver
    rooms       where a drain's time goes

docs/performance.md says how to read the figures. They are no tests: a floor that is missed is shown, not raised.
"""
