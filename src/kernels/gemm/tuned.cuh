// Tiles and splits that were measured to be faster than those of the rules in plan.cu.
//
// The table is tuned.inc. Its rows are found by pass, precision and product alone, and apply on
// every GPU, so that a plan stays a function of shape and `precision`, and a result has the same bits
// everywhere; where a row was measured is a note. set_tile_choices() of ops.h puts another table in
// its place while a program runs: benchmarks time candidates so, and tests see that rows are
// obeyed.
#pragma once

#include <string>

#include "plan.cuh"

namespace convnet {

// Which kernel takes the product on a device that has both: what the rule of plan.cu says, or one
// of the two.
enum class OnHopper { kRule, kWgmma, kMma };

struct TunedTile {
  const char* measured_on;
  Pass pass;
  Precision precision;
  Product product;
  TileKind tile;  // with mma.sync
  unsigned splits;
  OnHopper on_hopper;
};

// The row of the table in force for this product, if it has one: `*row`.
bool find_tuned(Pass pass, Precision precision, const Product& product, TunedTile* row);

}  // namespace convnet
