test_that("the table has every loss, with its defaults in Python", {
  losses <- reticulate::import("kinfold")$losses
  inspect <- reticulate::import("inspect")
  bases <- c("PairLoss", "LogSumExpLoss", "PrototypeLoss", "PairedLoss", "TrainableLoss")
  classes <- Filter(function(name) inspect$isclass(losses[[name]]), names(losses))
  expect_setequal(vapply(LOSSES, `[[`, "", "class"), setdiff(classes, bases))
  for (entry in LOSSES) {
    parameters <- inspect$signature(losses[[entry$class]])$parameters
    for (name in names(entry$arguments)) {
      expect_equal(eval(entry$arguments[[name]]), parameters[[name]]$default, info = name)
    }
    options <- reticulate::iterate(parameters$keys())
    own <- setdiff(unlist(options), c(
      "num_classes", "embedding_size", "remove_diagonal", "block_size", "reduction", "name",
      "dtype", "normalize", "gather_across_devices", "shard_classes", "detach_weights",
      if (entry$class == "CircleLoss") "distance"
    ))
    expect_setequal(as.character(names(entry$arguments)), own)
  }
})

test_that("every loss is exported", {
  skip_if_not("kinfold" %in% loadedNamespaces())
  expect_true(all(paste0("loss_", names(LOSSES)) %in% getNamespaceExports("kinfold")))
})

test_that("every loss is an object without data, and a number with them", {
  x <- numbers(8, 4)
  y <- rep(0:3, each = 2)
  for (name in names(LOSSES)) {
    loss <- get(paste0("loss_", name))
    kind <- LOSSES[[name]]$data
    sizes <- if (kind == "classes") list(num_classes = 4, embedding_size = 4)
    object <- do.call(loss, sizes %||% list())
    expect_s3_class(object, "keras.src.losses.loss.Loss")
    expect_equal(object$name, name)
    data <- switch(kind,
      pairs = , classes = list(y, x),
      partners = list(NULL, x, ref_embeddings = numbers(8, 4, seed = 2)),
      distances = list(c(1, 0, 1), c(0.1, 0.5, 2))
    )
    value <- do.call(loss, c(data, sizes))
    expect_true(is.numeric(value) && length(value) == 1L && is.finite(value), info = name)
    if (name != "proxy_anchor") { # one number per batch
      rows <- do.call(loss, c(data, sizes, reduction = "none"))
      expect_length(rows, length(data[[1]] %||% y))
    }
  }
})

test_that("loss_contrastive takes given distances", {
  expect_near(loss_contrastive(c(TRUE, FALSE), c(0.5, 0.8)), 0.145)
  expect_near(loss_contrastive(c(1, 0), c(0.5, 0.8), reduction = "none"), c(0.25, 0.04))
})

test_that("options of the base class go through the dots", {
  x <- 3 * numbers(6, 4)
  y <- c(1, 1, 2, 2, 3, 3)
  expect_near(loss_circle(y, x, normalize = TRUE, block_size = 2), loss_circle(y, x / 3))
})

test_that("a model is compiled and trained with a loss object", {
  keras <- reticulate::import("keras")
  keras$utils$set_random_seed(1L)
  model <- keras$Sequential(list(keras$layers$Dense(2L), keras$layers$UnitNormalization()))
  model$compile(optimizer = keras$optimizers$Adam(0.05), loss = loss_circle())
  x <- numbers(32, 4)
  y <- as.array(rep(0:7, 4))
  history <- model$fit(x, y, epochs = 5L, batch_size = 32L, verbose = 0L)$history$loss
  expect_lt(tail(unlist(history), 1), unlist(history)[1])
})
