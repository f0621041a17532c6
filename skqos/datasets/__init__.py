"""Data sets: WS-DREAM."""

from .wsdream import fetch_wsdream, load_wsdream

__all__ = ["fetch_wsdream", "load_wsdream"]
