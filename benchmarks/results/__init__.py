"""What our nets reach, and with which command: `python -m benchmarks.results` makes RESULTS.md."""
