"""The benchmarks of the PostgreSQL driver, on a real server that they start themselves, with every commit durable.

server       the server, schemas in it, and what the system and PostgreSQL say of them
bare         the ceiling: a small asyncio worker on tables of its own, without TaskHarbor; bare_statements has its SQL
lone         it as a process, for the lone job
filling      many rows in a moment                        counting    draining so many, and how fast at each stage
drain, processes, held, depth, enqueue, pickup, idle, soak    a theme each
"""
