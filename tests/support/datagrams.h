// Datagrams in and out of a socket of the stack, as text.
#pragma once

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>

#include "stack/socket/datagram_socket.h"

namespace ustack::test {

inline Status send_text(DatagramSocket& socket, std::string_view text, const DatagramOut& how = {}) {
  Result<TxFrame*> frame = socket.reserve(text.size());
  if (!frame.ok()) return frame.status();
  size_t at = 0;
  for (const Slice& slice : (*frame)->payload()) {
    std::memcpy(slice.data(), text.data() + at, slice.length);
    at += slice.length;
  }
  return socket.send(*frame, how);
}

inline std::string content_of(const Datagram& datagram) {
  const Bytes bytes = datagram.data.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The next one's text, and where it is from; "error ERRNO".
inline std::string take_text(DatagramSocket& socket, bool peek = false, SocketAddress* source = nullptr) {
  Result<Datagram*> got = socket.take(peek);
  if (!got.ok()) return "error " + std::to_string(got.code());
  std::string text = content_of(**got);
  if (source != nullptr) *source = (*got)->source;
  socket.done(*got);
  return text;
}

}  // namespace ustack::test
