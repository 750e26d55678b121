#include "shim/rights.h"

#include <cstring>
#include <utility>

#include "shim/call.h"
#include "shim/escape.h"
#include "shim/process.h"
#include "shim/user_copy.h"

namespace ustack::shim {

namespace {

size_t descriptors_in(const cmsghdr& control) {
  bool rights = control.cmsg_level == SOL_SOCKET && control.cmsg_type == SCM_RIGHTS;
  return rights && control.cmsg_len >= CMSG_LEN(0) ? (control.cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
}

template <typename Visit>
void each_descriptor(const cmsghdr& control, Visit&& visit) {
  for (size_t i = 0; i < descriptors_in(control); ++i) {
    int fd;
    std::memcpy(&fd, CMSG_DATA(&control) + i * sizeof fd, sizeof fd);
    visit(i, fd);
  }
}

}  // namespace

bool OutgoingRights::possible(const msghdr* message) {
  if (!Process::has_host() || Scope::inside()) return false;
  Result<msghdr> header = get_user(message);
  return header.ok() && header->msg_control != nullptr && header->msg_controllen >= sizeof(cmsghdr);
}

OutgoingRights::OutgoingRights(const msghdr* message) : message_(message) {
  if (!copy_control(message) || !any_of_ours()) return;
  message_ = &copy_;
  Scope scope;
  for (cmsghdr* control = CMSG_FIRSTHDR(&copy_); control != nullptr; control = CMSG_NXTHDR(&copy_, control))
    replace(*control);
}

/// False: there is more than could be sent.
bool OutgoingRights::copy_control(const msghdr* message) {
  Result<msghdr> header = get_user(message);
  if (!header.ok() || header->msg_controllen > control_.size()) return false;
  copy_ = *header;
  copy_.msg_control = control_.data();
  return copy_from_user(control_.data(), header->msg_control, header->msg_controllen).ok();
}

bool OutgoingRights::any_of_ours() {
  bool ours = false;
  for (cmsghdr* control = CMSG_FIRSTHDR(&copy_); control != nullptr; control = CMSG_NXTHDR(&copy_, control))
    each_descriptor(*control, [&](size_t, int fd) { ours |= FdTable::look(fd) != nullptr; });
  return ours;
}

void OutgoingRights::replace(cmsghdr& control) {
  each_descriptor(control, [&](size_t i, int fd) {
    HostLock lock;
    OpenFile* file = FdTable::look(fd);
    if (file == nullptr || file->kind() != OpenFile::Kind::socket || count_ == ends_.size()) return;
    Held held(*file);
    Result<io::Descriptor> end = escape::end_of(lock, static_cast<SocketFile&>(*file));
    if (!end.ok()) {
      error_ = end.code();
      return;
    }
    ends_[count_] = std::move(*end);
    int number = ends_[count_++].get();
    std::memcpy(CMSG_DATA(&control) + i * sizeof number, &number, sizeof number);
  });
}

void forget_received(const msghdr& message) {
  if (!Process::has_host() || Scope::inside() || message.msg_controllen < sizeof(cmsghdr)) return;
  auto& header = const_cast<msghdr&>(message);
  for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr; control = CMSG_NXTHDR(&header, control))
    each_descriptor(*control, [](size_t, int fd) { FdTable::forget_stale(fd); });
}

}  // namespace ustack::shim
