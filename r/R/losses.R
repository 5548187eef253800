# The functions, made from the table: formals of their own, one body.

FIRST <- list(
  pairs = alist(
    y_true = , y_pred = , ref_labels = NULL, ref_embeddings = NULL, remove_diagonal = TRUE
  ),
  classes = alist(y_true = , y_pred = , num_classes = , embedding_size = ),
  partners = alist(y_true = , y_pred = , ref_embeddings = NULL),
  distances = alist(y_true = , y_pred = )
)

DATA <- c("y_true", "y_pred", "ref_labels", "ref_embeddings")

loss_function <- function(name, entry) {
  last <- alist(... = , reduction = "sum_over_batch_size", name = NULL, dtype = NULL)
  last$name <- name
  made <- function(y_true, y_pred, ...) {
    given <- as.list(environment())
    absent <- c(missing(y_true), missing(y_pred))
    run_loss(entry, given[!names(given) %in% DATA[1:2][absent]], list(...), absent)
  }
  formals(made) <- c(FIRST[[entry$data]], entry$arguments, last)
  environment(made) <- list2env(list(entry = entry), parent = topenv())
  made
}

for (.name in names(LOSSES)) {
  assign(paste0("loss_", .name), loss_function(.name, LOSSES[[.name]]))
}
rm(.name)

run_loss <- function(entry, given, more, absent) {
  if (any(names(more) == "") || (length(more) > 0L && is.null(names(more)))) {
    stop("`...` takes named arguments only, such as `block_size = 256`.", call. = FALSE)
  }
  needed <- names(given)[vapply(names(given), function(name) is.symbol(given[[name]]), NA)]
  if (length(needed) > 0L) {
    what <- c(num_classes = "how many classes there are", embedding_size = "the columns of `y_pred`")
    stop("`", needed[1L], "` is missing: pass ", what[[needed[1L]]], ".", call. = FALSE)
  }
  options <- as_options(c(given[setdiff(names(given), DATA)], more))
  loss <- in_python(do.call(kinfold()$losses[[entry$class]], options))
  data <- given[intersect(names(given), DATA)]
  if (all(absent)) {
    references <- names(data)[!vapply(data, is.null, NA)]
    if (length(references) > 0L) {
      stop("`", references[1L], "` belongs to data; without `y_true` and `y_pred` it has no use.",
        call. = FALSE
      )
    }
    return(loss)
  }
  if (any(absent)) {
    stop("`", DATA[1:2][absent], "` is missing: pass `y_true` and `y_pred` for a value, ",
      "or neither for a loss object that compile() takes.",
      call. = FALSE
    )
  }
  value <- in_python(do.call(loss, as_data(entry$data, data, given$num_classes)))
  if (is_python(data$y_pred)) value else as_number(value)
}

as_options <- function(options) {
  for (name in intersect(names(options), COUNTS)) {
    value <- options[[name]]
    if (is.numeric(value) && length(value) == 1L && isTRUE(value == as.integer(value))) {
      options[[name]] <- as.integer(value)
    }
  }
  options
}
