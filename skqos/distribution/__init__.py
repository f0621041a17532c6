"""The distribution of measurements around the predictions of an estimator."""
