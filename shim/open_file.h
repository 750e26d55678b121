// Open file descriptions: what descriptors refer to (open(2)), shared by dup and fork. They live in the
// arena.
#pragma once

#include <atomic>
#include <cstdint>

#include "stack/base/intrusive_list.h"
#include "stack/socket/socket.h"

namespace ustack::shim {

class Claims;
class HostLock;
struct EpollMember;
struct OfFile;  // tag: all registrations of one file, whatever set they are in

/// One open file description of ours, in its host's list of them. Counted by the descriptors of all processes
/// that refer to it and by calls under way. Lock: the host's.
class OpenFile : public ListHook<> {
 public:
  enum class Kind : uint8_t { socket, epoll };

  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  Kind kind() const { return kind_; }
  /// Bits of ready:: true now.
  virtual uint32_t readiness() = 0;
  virtual WaitQueue& waiters() = 0;
  /// A descriptor of the kernel's whose readiness is part of this file's: an epoll set's own, a listener's
  /// twin. -1: none in this process. The file's own readiness() does not look at it.
  virtual int kernel_half() const { return -1; }
  /// Where the file is registered with epoll (not counted as references, epoll(7) Q6).
  IntrusiveList<EpollMember, OfFile> registrations;
  /// O_NONBLOCK and O_ASYNC (fcntl(2), F_SETFL): they belong to the description, not to the descriptor.
  int status_flags = 0;

  /// close(2) of the last number has to wait as SO_LINGER says; and waits. Lock held, dropped meanwhile.
  virtual bool lingers() const { return false; }
  virtual void linger(HostLock&) {}

  /// The thread that `dead` is of has died: a turn at the file that it had is over. Lock held.
  virtual void end_turns(const Claims& dead) { (void)dead; }

  /// What a lock has to cover for it to be asked for its readiness: its shard, where the host has several, or
  /// kWhole.
  uint8_t asked_under() const { return asked_under_; }

  void reference() { ++references_; }
  uint32_t references() const { return references_; }
  /// After a process was killed while it changed them.
  void mend_references(uint32_t right) { references_ = right; }
  /// How many of the references are held by ends outside of the library (escape.h).
  uint32_t end_count() const { return end_count_; }
  /// Drops a reference; the last one ends the file's epoll registrations, closes it and frees it: at once, or
  /// where the lock covers a shard alone, when it is dropped (SharedHost::unreferenced).
  void release();
  /// The same, but whether it was the last one is for the caller to act upon, by close_for_good().
  bool release_leaving_close();
  /// Ends its epoll registrations, closes it and frees it, once nothing refers to it: what release() ends
  /// with, which a process that was killed may have begun.
  void close_for_good();

 protected:
  explicit OpenFile(Kind kind);
  /// The last thing of making one: it is in the host's list, and closed if its maker is killed before
  /// anything refers to it.
  void enlist();
  virtual ~OpenFile();
  /// Before its memory is freed: from here on nobody finds it. (A destructor would leave the list when it is
  /// half gone.)
  void leave_list() { ListHook<>::unlink(); }
  /// The last reference is gone: gives back what the file stands for, ends the FileStep that this may be part
  /// of, leaves the list, and frees its own memory (only the class itself knows its size). May have been
  /// begun before.
  virtual void close() = 0;
  /// Of the references only those of ends outside are left.
  virtual void left_to_ends() {}
  uint32_t end_count_ = 0;

 private:
  uint32_t references_ = 1;
  Kind kind_;

 protected:
  uint8_t asked_under_ = 0xff;
};

}  // namespace ustack::shim
