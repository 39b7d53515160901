"""TaskHarbor: background jobs and simple durable workflows, driven by types."""
