"""What our nets reach, and with which command.

`python -m benchmarks.accuracy_page` makes RESULTS.md."""
