# Matrices and labels of R, as what the losses of Python take.

is_python <- function(x) inherits(x, "python.builtin.object")

as_data <- function(kind, data, num_classes = NULL) {
  labels <- switch(kind,
    pairs = pair_labels(data$y_true, data$ref_labels),
    classes = list(y_true = class_labels(data$y_true, num_classes)),
    distances = list(y_true = binary_labels(data$y_true)),
    partners = list(y_true = NULL)
  )
  x <- data$y_pred
  arguments <- list(
    labels$y_true,
    if (kind == "distances" && !is_python(x)) as.array(as_numbers(x, "y_pred")) else
      as_embeddings(x, "y_pred", kind == "partners" && is.null(data$ref_embeddings))
  )
  if (!is.null(labels$ref_labels)) arguments$ref_labels <- labels$ref_labels
  if (!is.null(data$ref_embeddings)) {
    arguments$ref_embeddings <- as_embeddings(data$ref_embeddings, "ref_embeddings")
  }
  arguments
}

as_embeddings <- function(x, name, both_sides = FALSE) {
  if (is_python(x)) {
    return(x)
  }
  if (is.data.frame(x)) x <- as.matrix(x)
  if (!is.numeric(x) || !length(dim(x)) %in% c(2L, if (both_sides) 3L)) {
    stop("`", name, "` must be a numeric matrix with one row an example. Received ", seen(x),
      if (is.numeric(x) && is.null(dim(x))) "; make it a matrix.", ".",
      call. = FALSE
    )
  }
  as_numbers(x, name)
}

as_numbers <- function(x, name) {
  if (!is.numeric(x)) {
    stop("`", name, "` must hold numbers. Received ", seen(x), ".", call. = FALSE)
  }
  if (anyNA(x)) stop("`", name, "` holds NA or NaN; leave such examples out.", call. = FALSE)
  storage.mode(x) <- "double"
  x
}

# Ids 0, 1, ... that are equal where the labels are: of what is compared, nothing else counts.
pair_labels <- function(y, ref) {
  if (is_python(y) || is_python(ref) || length(dim(y)) == 2L && ncol(y) > 1L) {
    return(list(y_true = several(y, "y_true"), ref_labels = several(ref, "ref_labels")))
  }
  y <- label_vector(y, "y_true")
  ref <- if (!is.null(ref)) label_vector(ref, "ref_labels")
  if (!is.null(ref) && is.character(y) != is.character(ref)) {
    stop("`y_true` and `ref_labels` must both be numbers or both be names. Received ", seen(y),
      " and ", seen(ref), ".",
      call. = FALSE
    )
  }
  known <- unique(c(y, ref))
  ids <- function(labels) if (!is.null(labels)) as.array(match(labels, known) - 1L)
  list(y_true = ids(y), ref_labels = ids(ref))
}

# Labels of several columns: TRUE and FALSE of each pair, or 0 and 1 of each label.
several <- function(y, name) {
  if (is.null(y) || is_python(y)) {
    return(y)
  }
  if (is.logical(y)) {
    check_no_na(y, name)
    return(as.array(y))
  }
  as.array(whole_numbers(y, name))
}

class_labels <- function(y, num_classes) {
  if (is_python(y)) {
    return(y)
  }
  if (is.factor(y)) {
    check_no_na(y, "y_true")
    y <- as.integer(y) - 1L
  }
  y <- label_vector(y, "y_true")
  if (is.character(y)) {
    stop("`y_true` must hold class ids from 0 to num_classes - 1, or be a factor whose levels are ",
      "all the classes. Received characters; pass factor(y_true, levels = all_classes).",
      call. = FALSE
    )
  }
  y <- whole_numbers(y, "y_true")
  wrong <- y[y < 0 | y >= num_classes]
  if (length(wrong) > 0L) {
    stop("`y_true` must hold class ids from 0 to ", num_classes - 1, ", because num_classes is ",
      num_classes, ". Received the id ", wrong[1L], "; subtract 1 from ids that start at 1, or ",
      "pass factor(y_true).",
      call. = FALSE
    )
  }
  as.array(y)
}

binary_labels <- function(y) {
  if (is_python(y)) {
    return(y)
  }
  if (is.factor(y) || is.character(y)) {
    stop("`y_true` must be TRUE or 1 for pairs of one kind, and FALSE or 0 for others. Received ",
      seen(y), ".",
      call. = FALSE
    )
  }
  as.array(whole_numbers(label_vector(y, "y_true"), "y_true"))
}

# Labels as a vector of characters (factors too), or of numbers (logical too).
label_vector <- function(y, name) {
  if (is.factor(y)) y <- as.character(y)
  usual <- is.character(y) || is.logical(y) || is.numeric(y) && !inherits(y, "integer64")
  if (!usual || length(dim(y)) > 1L && ncol(y) != 1L) {
    stop("`", name, "` must be a vector of integers, a factor, characters or logicals. Received ",
      seen(y), ".",
      call. = FALSE
    )
  }
  check_no_na(y, name)
  y <- as.vector(y)
  if (is.character(y)) {
    return(y)
  }
  if (any(y != round(y))) {
    stop("`", name, "` must hold whole numbers, as class ids are. Received ",
      y[y != round(y)][1L], ".",
      call. = FALSE
    )
  }
  as.numeric(y)
}

check_no_na <- function(y, name) {
  if (anyNA(y)) stop("`", name, "` holds NA; leave such examples out.", call. = FALSE)
}

whole_numbers <- function(y, name) {
  if (!is.numeric(y) && !is.logical(y)) {
    stop("`", name, "` must hold integers. Received ", seen(y),
      if (is.factor(y) || is.character(y)) "; beside a tensor, names are compared with nothing",
      ".",
      call. = FALSE
    )
  }
  check_no_na(y, name)
  refused <- y[y != round(y)]
  if (length(refused) > 0L) {
    stop("`", name, "` must hold whole numbers. Received ", refused[1L], ".", call. = FALSE)
  }
  refused <- y[abs(y) > .Machine$integer.max]
  if (length(refused) > 0L) {
    stop("`", name, "` must hold integers of at most ", .Machine$integer.max, " here. Received ",
      refused[1L], ".",
      call. = FALSE
    )
  }
  storage.mode(y) <- "integer"
  y
}

# What an error says that it received.
seen <- function(x) {
  shape <- if (is.null(dim(x))) length(x) else paste(dim(x), collapse = " x ")
  paste0(class(x)[1L], " [", shape, "]")
}
