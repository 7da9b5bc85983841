"""Models over HTTP: jobs that nothing can lose, workers that hold the Models, and the doors to them. No torch."""
