"""Video instance segmentation by propagating masks with patch features, measured by region and contour (DAVIS 2017).

The modules need genviews-ssl-eval[images].
"""
