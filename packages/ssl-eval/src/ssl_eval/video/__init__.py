"""Instances followed through videos by the likeness of patch features, measured by region and contour (DAVIS 2017).

The modules need genviews-ssl-eval[images].
"""
