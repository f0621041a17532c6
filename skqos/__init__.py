"""Deep models that predict Web-service QoS, as scikit-learn regressors."""
