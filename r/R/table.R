# Every loss, by the name of its function without "loss_": its class in Python, the data that it
# takes, and its own arguments with their defaults. The functions and their help come from here.

of <- function(data) {
  function(class, ...) {
    list(class = class, data = data, arguments = as.list(substitute(list(...)))[-1L])
  }
}
of_pairs <- of("pairs")
of_classes <- of("classes")
of_partners <- of("partners")
of_distances <- of("distances")

LOSSES <- list(
  circle = of_pairs("CircleLoss", gamma = 80L, margin = 0.4),
  multi_similarity = of_pairs("MultiSimilarityLoss",
    alpha = 2, beta = 50, threshold = 0.5, epsilon = NULL, distance = "cosine"
  ),
  triplet = of_pairs("TripletLoss",
    margin = 0.2, positives = "hard", negatives = "semi-hard", swap = FALSE, distance = "cosine"
  ),
  pair_contrastive = of_pairs("PairContrastiveLoss",
    positive_margin = 0, negative_margin = 1, distance = "euclidean"
  ),
  sup_con = of_pairs("SupConLoss", temperature = 0.1, distance = "cosine", graded = FALSE),
  nt_xent = of_pairs("NTXentLoss", temperature = 0.07, distance = "cosine"),
  soft_nearest_neighbor = of_pairs("SoftNearestNeighborLoss",
    temperature = 1, distance = "cosine"
  ),
  lifted_structure = of_pairs("LiftedStructureLoss",
    negative_margin = 1, positive_margin = 0, distance = "euclidean"
  ),
  generalized_lifted_structure = of_pairs("GeneralizedLiftedStructureLoss",
    negative_margin = 1, positive_margin = 0, distance = "euclidean"
  ),
  n_pairs = of_pairs("NPairsLoss", distance = "inner_product"),
  margin = of_pairs("MarginLoss", margin = 0.2, beta = 1.2, distance = "euclidean"),
  tuplet_margin = of_pairs("TupletMarginLoss", margin = 5.73, scale = 64),
  angular = of_pairs("AngularLoss", alpha = 40),
  fast_ap = of_pairs("FastAPLoss", bins = 10L, distance = "squared_euclidean"),
  smooth_ap = of_pairs("SmoothAPLoss", temperature = 0.01, distance = "cosine"),
  pnp = of_pairs("PNPLoss",
    variant = "O", b = 2, alpha = 1, temperature = 0.01, distance = "cosine"
  ),
  ranked_list = of_pairs("RankedListLoss",
    margin = 0.4, negative_temperature = 10, balance = 0.5, alpha = NULL,
    positive_temperature = 0, distance = "euclidean"
  ),
  histogram = of_pairs("HistogramLoss", bins = 100L),
  threshold_consistent_margin = of_pairs("ThresholdConsistentMarginLoss",
    positive_margin = 0.1, negative_margin = 0.5, positive_weight = 1, negative_weight = 1,
    distance = "cosine"
  ),
  intra_pair_variance = of_pairs("IntraPairVarianceLoss",
    positive_epsilon = 0.01, negative_epsilon = 0.01
  ),
  arc_face = of_classes("ArcFaceLoss", margin = 0.5, scale = 64, sub_centers = 1L),
  cos_face = of_classes("CosFaceLoss", margin = 0.35, scale = 64),
  normalized_softmax = of_classes("NormalizedSoftmaxLoss", temperature = 0.05),
  sphere_face = of_classes("SphereFaceLoss", margin = 4, scale = 1),
  large_margin_softmax = of_classes("LargeMarginSoftmaxLoss", margin = 4, scale = 1),
  p2s_grad = of_classes("P2SGradLoss"),
  proxy_nca = of_classes("ProxyNCALoss", temperature = 1 / 9),
  proxy_anchor = of_classes("ProxyAnchorLoss", margin = 0.1, alpha = 32),
  soft_triple = of_classes("SoftTripleLoss",
    centers_per_class = 10L, scale = 20, gamma = 0.1, margin = 0.01, regularization = 0.2
  ),
  manifold = of_classes("ManifoldLoss",
    context_weight = 1, intrinsic_weight = 1, alpha = 0.8, margin = 5e-4
  ),
  info_nce = of_partners("InfoNCELoss",
    temperature = 0.07, both_directions = TRUE, train_temperature = FALSE, positives = 1L,
    guide_margin = NULL
  ),
  sig_lip = of_partners("SigLIPLoss",
    scale = 10, bias = -10, train_scale_and_bias = TRUE, positives = 1L, guide_margin = NULL
  ),
  contrastive = of_distances("ContrastiveLoss", margin = 1)
)

# Arguments that Python counts with; R writes 10 for 10L.
COUNTS <- c(
  "num_classes", "embedding_size", "bins", "sub_centers", "centers_per_class", "block_size", "positives"
)
