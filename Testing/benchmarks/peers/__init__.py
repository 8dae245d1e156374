"""What the engine's benchmark runs: every contender, and every measure of its own, is a process of its own.

The process that starts them (``engine.py``) imports the standard library alone: what a child reports as its peak
memory includes what its parent held when it was started."""
