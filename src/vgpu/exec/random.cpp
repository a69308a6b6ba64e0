#include "random.h"

#include "fault.h"

namespace vgpu {

Order order_of(const std::string& text) {
  if (text == "forward") return {};
  if (text == "reverse") return {Order::Kind::reverse, 0};
  if (text.starts_with("shuffle:") && text.size() > 8 &&
      text.find_first_not_of("0123456789", 8) == text.npos)
    return {Order::Kind::shuffle, std::stoull(text.substr(8))};
  throw KernelFault{kLaunchFailed,
                    "VGPU_ORDER: expected forward, reverse or shuffle:SEED, got \"" + text + "\""};
}

}  // namespace vgpu
