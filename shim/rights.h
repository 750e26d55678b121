// Descriptors that travel in messages (SCM_RIGHTS, unix(7)) over the kernel's sockets.
#pragma once

#include <sys/socket.h>

#include <array>

#include "io/descriptor.h"

namespace ustack::shim {

/// A message to be sent by the kernel, with ends outside (escape.h) in the place of descriptors of ours.
class OutgoingRights {
 public:
  explicit OutgoingRights(const msghdr* message);
  /// A look without cost for most: whether the message may carry descriptors of ours.
  static bool possible(const msghdr* message);
  /// 0, or the errno of a descriptor that can't leave.
  int error() const { return error_; }
  /// What to send: the message itself where nothing of it is ours. Valid as long as this object.
  const msghdr* message() const { return message_; }

 private:
  /// Linux's SCM_MAX_FD.
  static constexpr size_t kMostDescriptors = 253;
  static constexpr size_t kControlBytes = 4096;
  bool copy_control(const msghdr* message);
  bool any_of_ours();
  void replace(cmsghdr& control);

  const msghdr* message_;
  int error_ = 0;
  msghdr copy_{};
  size_t count_ = 0;
  std::array<io::Descriptor, kMostDescriptors> ends_;
  alignas(cmsghdr) std::array<char, kControlBytes> control_;
};

/// Numbers that a received message has brought are nothing of ours, whatever had them before.
void forget_received(const msghdr& message);

}  // namespace ustack::shim
