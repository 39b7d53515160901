"""The benchmarks of the SQLite driver: its promises are about a disk, and about several processes on one file.

bare         the ceiling: the same statements in a loop, without TaskHarbor
drain, enqueue, pickup, idle, processes, depth    a theme each
"""
