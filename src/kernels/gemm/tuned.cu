// The table of measured tiles. On the host only.
#include "tuned.cuh"

#include <mutex>
#include <utility>
#include <vector>

#include "mma.cuh"

namespace convnet {
namespace {

const TunedTile kTuned[] = {
#include "tuned.inc"
    {},  // ends the table
};

constexpr std::pair<OnHopper, const char*> kOnHopper[] = {
    {OnHopper::kRule, "rule"}, {OnHopper::kWgmma, "wgmma"}, {OnHopper::kMma, "mma"}};

std::vector<TunedTile> built_in() {
  std::vector<TunedTile> rows;
  for (const TunedTile* row = kTuned; row->measured_on != nullptr; ++row) rows.push_back(*row);
  return rows;
}

// Plans are made on any thread, while a benchmark may change the table.
struct Table {
  std::mutex mutex;
  std::vector<TunedTile> rows = built_in();
};
Table& table() {
  static Table table;
  return table;
}

TunedTile as_row(const TileChoice& choice) {
  const char* op = "set_tile_choices";
  std::string names;
  const TileKind* found = nullptr;
  for (const auto& [kind, name] : kTileNames) {
    if (kind == TileKind::kHuge && !has_huge_tiles(choice.pass, choice.precision)) continue;
    names += (names.empty() ? "" : ", ") + std::string(name);
    if (choice.tile == name) found = &kind;
  }
  if (choice.precision == Precision::kFfma)
    fail(op, "precision", "\"fp32\", \"tf32\" or \"bf16\"", "\"ffma\"");
  if (found == nullptr) {
    fail(op, "tile", "one of " + names + ", which this pass and precision have", choice.tile);
  }
  const std::int64_t steps = (choice.k + kMmaK - 1) / kMmaK;
  if (choice.splits < 1 || choice.splits > steps) {
    fail(op, "splits",
         "1 to " + std::to_string(steps) + ", the steps of k = " + std::to_string(choice.k),
         std::to_string(choice.splits));
  }
  const OnHopper* on_hopper = nullptr;
  for (const auto& [kind, name] : kOnHopper) {
    if (choice.on_hopper == name) on_hopper = &kind;
  }
  if (on_hopper == nullptr) fail(op, "on_hopper", "rule, wgmma or mma", choice.on_hopper);
  TunedTile row{};
  row.measured_on = "";
  row.pass = choice.pass;
  row.precision = choice.precision;
  row.product = {choice.m, choice.n, choice.k, choice.products};
  row.tile = *found;
  row.splits = static_cast<unsigned>(choice.splits);
  row.on_hopper = *on_hopper;
  return row;
}

}  // namespace

bool find_tuned(Pass pass, Precision precision, const Product& product, TunedTile* found) {
  const std::lock_guard<std::mutex> lock(table().mutex);
  for (const TunedTile& row : table().rows) {
    const Product& p = row.product;
    if (row.pass == pass && row.precision == precision && p.m == product.m && p.n == product.n &&
        p.k == product.k && p.products == product.products) {
      *found = row;
      return true;
    }
  }
  return false;
}

void set_tile_choices(const std::vector<TileChoice>& choices) {
  std::vector<TunedTile> rows;
  for (const TileChoice& choice : choices) rows.push_back(as_row(choice));
  const std::lock_guard<std::mutex> lock(table().mutex);
  table().rows = std::move(rows);
}

void reset_tile_choices() {
  const std::lock_guard<std::mutex> lock(table().mutex);
  table().rows = built_in();
}

}  // namespace convnet
