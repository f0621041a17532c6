"""Data sets: WS-DREAM and a seeded generator."""

from .synthetic import make_qos
from .wsdream import fetch_wsdream, load_wsdream

__all__ = ["fetch_wsdream", "load_wsdream", "make_qos"]
