"""Many pruned models evaluated on one loaded model; resumable."""
