import os

# Threads of torch's OpenMP spin while they wait for each other. Where another process wants a core too, that burns ten times
# the CPU-seconds of the work itself (measured); sleeping costs a quiet machine little. Read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Every layer takes and returns tens of megabytes. In huge pages, where the system grants them on request, that costs few page faults
# (a tenth of a training step). Linux only; read once as well.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
