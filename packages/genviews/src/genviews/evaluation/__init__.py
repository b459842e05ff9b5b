"""Evaluation tasks: classification, retrieval, copy detection, video, slides and segmentation."""
