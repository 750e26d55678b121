#include "shim/twins.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>

#include "io/syscalls.h"
#include "shim/fd_table.h"

namespace ustack::shim::twins {

namespace {

/// `file` is set after the descriptors and cleared before they are closed: what a child of fork finds is
/// open.
struct Entry {
  bool stands_for(const OpenFile* what) const { return file.load(std::memory_order_relaxed) == what; }
  bool taken() const { return !stands_for(nullptr); }
  int watched() const { return set >= 0 ? set : listeners[0]; }

  std::atomic<const OpenFile*> file{nullptr};
  int set = -1;
  std::array<int, 2> listeners{-1, -1};
};

std::array<Entry, kMost> list;
/// No place from here on was ever used.
std::atomic<size_t> used{0};
/// Which listener is asked first.
bool second_first;

template <typename Matches>
Entry* find(Matches&& matches) {
  auto* end = list.begin() + used.load(std::memory_order_relaxed);
  auto* found = std::find_if(list.begin(), end, matches);
  return found != end ? found : nullptr;
}

Entry* find_file(const OpenFile* file) {
  return find([file](const Entry& entry) { return entry.stands_for(file); });
}

void close_one(Entry& entry) {
  entry.file.store(nullptr, std::memory_order_seq_cst);
  io::Descriptor set(entry.set), first(entry.listeners[0]), second(entry.listeners[1]);
}

}  // namespace

bool add(const OpenFile& file, Twin& twin) {
  Entry* place = find_file(nullptr);
  if (place == nullptr) {
    size_t next = used.load(std::memory_order_relaxed);
    if (next == kMost) return false;
    place = &list[next];
    used.store(next + 1, std::memory_order_relaxed);
  }
  place->set = twin.set.release();
  std::ranges::transform(twin.listeners, place->listeners.begin(), &io::Descriptor::release);
  place->file.store(&file, std::memory_order_release);
  return true;
}

int of(const OpenFile& file) {
  const Entry* entry = find_file(&file);
  return entry != nullptr ? entry->watched() : -1;
}

Result<int> accept(const OpenFile& file, int flags) {
  const Entry* entry = find_file(&file);
  if (entry == nullptr) return Error{EAGAIN};
  second_first = !second_first;
  for (bool second : {second_first, !second_first}) {
    const int listener = entry->listeners[second];
    if (listener < 0) continue;
    const long fd = io::sys::call(SYS_accept4, listener, 0, 0, flags);
    if (fd >= 0) return static_cast<int>(fd);
    if (fd != -EAGAIN) return Error{static_cast<int>(-fd)};
  }
  return Error{EAGAIN};
}

void set_backlog(const OpenFile& file, int backlog) {
  const Entry* entry = find_file(&file);
  if (entry == nullptr) return;
  for (int listener : entry->listeners)
    if (listener >= 0) io::sys::call(SYS_listen, listener, backlog);
}

void end(const OpenFile& file) {
  Entry* entry = find_file(&file);
  if (entry == nullptr) return;
  for (int listener : entry->listeners)
    if (listener >= 0) io::sys::call(SYS_shutdown, listener, SHUT_RD);
  close_one(*entry);
}

void close(const OpenFile& file) {
  if (Entry* entry = find_file(&file)) close_one(*entry);
}

bool has(int fd) {
  return find([fd](const Entry& entry) {
           return entry.taken() && (entry.set == fd || entry.listeners[0] == fd || entry.listeners[1] == fd);
         }) != nullptr;
}

void keep_those_of(FdTable* table) {
  for (size_t i = 0; i < used.load(std::memory_order_relaxed); ++i) {
    const OpenFile* file = list[i].file.load(std::memory_order_relaxed);
    if (file != nullptr && (table == nullptr || !table->refers_to(*file))) close_one(list[i]);
  }
}

void forget_all() { used.store(0, std::memory_order_relaxed); }

}  // namespace ustack::shim::twins
