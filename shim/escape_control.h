// Questions about a connection outside of the library, and settings of it: a program that has the library in
// it asks the keeper, and shows the descriptor to prove that it may.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "shim/escaped_name.h"

namespace ustack::shim::escape {

/// One message to the keeper's control socket (SOCK_SEQPACKET, format_keeper_name()), with the descriptor
/// (SCM_RIGHTS); one message back; then the connection ends.
struct ControlRequest {
  /// connect: it is asked to connect once more, wherever that is.
  enum Operation : uint32_t { get_option, set_option, connect };
  static constexpr size_t kMostBytes = 512;
  Operation operation = get_option;
  int32_t level = 0, name = 0;
  /// set_option: of the value; get_option: how many are wanted at most.
  uint32_t length = 0;
  std::array<std::byte, kMostBytes> value{};
};
struct ControlAnswer {
  int32_t error = 0;
  uint32_t length = 0;
  std::array<std::byte, ControlRequest::kMostBytes> value{};
};

/// In the keeper: answers under this address from now on. Without a descriptor for it, it doesn't.
void start_control(const UnixAddress& address);

}  // namespace ustack::shim::escape
