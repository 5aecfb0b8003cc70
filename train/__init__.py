import os

# Threads of torch's OpenMP spin while they wait for each other. Where another process wants a core too, that burns ten times
# the CPU-seconds of the work itself (measured); sleeping costs a quiet machine little. Read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
