"""How the tables name the QoS of WS-DREAM data set 1, and the digits of their errors."""

from __future__ import annotations

# In the columns of a table.
LABELS = {"rt": ("response time, s", 3), "tp": ("throughput, kbps", 2)}
# Above a table.
TITLES = {"rt": ("Response time in s", 3), "tp": ("Throughput in kbps", 2)}
