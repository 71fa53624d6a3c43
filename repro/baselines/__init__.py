"""Methods that preceded the paper, run on the same stores: SIFT with Fisher vectors, sparse coding, and raw pixels.

No method here is a net, and none needs torch. Training a vocabulary needs the extra `contest`.
"""
