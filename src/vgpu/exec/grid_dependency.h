// Programmatic dependent launch: PTX ISA, "griddepcontrol". A kernel that was launched so may begin
// while the one before it in its stream still runs, and sees nothing of what that writes before it
// has executed griddepcontrol.wait.
//
// Here it runs after the other, which would hide a wait that is missing. So it is noted what memory
// the first kernel touches, and a thread of the second that touches the same before the wait is
// stopped, as if it had been there first.
#pragma once
#include <bitset>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "vgpu/ptx/instruction.h"

namespace vgpu {

struct Launch;
struct Warp;

// The bytes of global memory that a launch read and wrote.
class GlobalAccesses {
 public:
  explicit GlobalAccesses(std::string kernel) : kernel_(std::move(kernel)) {}

  void clear();
  void note(std::uint64_t address, std::uint64_t size, bool reads, bool writes);
  void merge(const GlobalAccesses& other);
  // Launches before this one that it did not wait for: they may run on as well.
  void add(std::vector<std::shared_ptr<const GlobalAccesses>> before) {
    before_ = std::move(before);
  }

  // Whether any of the bytes was written, or, for a write, read; then the kernel's name, else "".
  std::string conflict(std::uint64_t address, std::uint64_t size, bool writes) const;

 private:
  static constexpr unsigned kPage = 4096;
  struct Page {
    std::bitset<kPage> read, written;
  };
  std::string kernel_;
  std::unordered_map<std::uint64_t, Page> pages_;
  std::vector<std::shared_ptr<const GlobalAccesses>> before_;
};

// Whether the accesses of a launch have to be noted, or looked at.
bool watches_memory(const Launch& launch);
// An access by this lane, before it is executed.
void watch_access(Warp& w, const Ins& i, std::uint64_t address, std::uint64_t size, int lane,
                  bool reads, bool writes);
// The accesses of an instruction, all but those of bulk copies, which call watch_access().
void watch_instruction(Warp& w, const Ins& i);
void wait_for_grids(Warp& w, const Ins& i);

}  // namespace vgpu
