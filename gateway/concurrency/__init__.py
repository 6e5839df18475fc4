"""Fair queues, clocks that survive adjustment, and stopping tasks."""
