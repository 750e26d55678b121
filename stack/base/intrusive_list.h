// A doubly linked list whose links live in its elements: no allocation, O(1) removal, any memory.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ustack {

/// The one step on any list that is under way, for lists in memory that outlives a process: one that is
/// killed in the middle of it leaves a step that the next owner of the lists finishes. A step is written down
/// before and struck out after it, so that finishing it twice, or one that was already done, changes nothing.
struct ListJournal {
  /// As every ListHook begins.
  struct Links {
    Links* next;
    Links* prev;
  };
  /// nullptr: no step is under way.
  Links* item = nullptr;
  Links* before = nullptr;
  Links* after = nullptr;
  bool removes = false;
};

/// The journals of memory that outlives a process, one for each of its parts: all items in a part are moved
/// under the same lock, whatever list they are in.
class ListJournals {
 public:
  static constexpr size_t kMostParts = 9;

  ListJournals() = default;
  /// From `begin` up to `end` in parts of 2^shift bytes, at most kMostParts.
  ListJournals(const void* begin, const void* end, uint32_t shift)
      : begin_(reinterpret_cast<uintptr_t>(begin)),
        bytes_(reinterpret_cast<uintptr_t>(end) - begin_),
        shift_(shift) {}

  /// Lists elsewhere, on stacks for one, die with theirs: a step of such an item isn't noted (nullptr), and
  /// their ends of a step aren't finished.
  ListJournal* of(const void* item) {
    const uintptr_t offset = reinterpret_cast<uintptr_t>(item) - begin_;
    return offset < bytes_ ? &journals_[offset >> shift_] : nullptr;
  }
  /// Finishes the step that was under way in a part.
  void finish(size_t part) {
    ListJournal& journal = journals_[part];
    ListJournal::Links *item = journal.item, *before = journal.before, *after = journal.after;
    if (item == nullptr) return;
    if (of(before) != nullptr) before->next = journal.removes ? after : item;
    if (of(after) != nullptr) after->prev = journal.removes ? before : item;
    item->next = journal.removes ? nullptr : after;
    item->prev = journal.removes ? nullptr : before;
    journal.item = nullptr;
  }

 private:
  uintptr_t begin_ = 0, bytes_ = 0;
  uint32_t shift_ = 63;
  std::array<ListJournal, kMostParts> journals_;
};

/// Where the lists of this process's host are noted; nullptr: nowhere, the process's death is theirs. Changed
/// before the host is shared; used under the host's lock.
inline ListJournals* list_journals = nullptr;

/// A step's entry in the journal.
class ListStep {
 public:
  ListStep(void* item, void* before, void* after, bool removes)
      : journal_(list_journals != nullptr ? list_journals->of(item) : nullptr) {
    if (journal_ == nullptr) return;
    journal_->before = static_cast<ListJournal::Links*>(before);
    journal_->after = static_cast<ListJournal::Links*>(after);
    journal_->removes = removes;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    journal_->item = static_cast<ListJournal::Links*>(item);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  ~ListStep() {
    if (journal_ == nullptr) return;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    journal_->item = nullptr;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  ListStep(const ListStep&) = delete;
  ListStep& operator=(const ListStep&) = delete;

 private:
  ListJournal* journal_;
};

/// Derive from ListHook<Tag> once for each list that an object can be in. An object leaves its list when it
/// is destroyed. Not copied with its object.
template <typename Tag = void>
class ListHook {
 public:
  ListHook() = default;
  ListHook(const ListHook&) {}
  ListHook& operator=(const ListHook&) { return *this; }
  ~ListHook() { unlink(); }

  bool linked() const { return next_ != nullptr; }
  /// Leaves the list it is in, if any.
  void unlink() {
    if (next_ == nullptr) return;
    ListStep step(this, prev_, next_, true);
    prev_->next_ = next_;
    next_->prev_ = prev_;
    next_ = prev_ = nullptr;
  }
  /// In no list from here on; the neighbours in the list it was in are not told, since that died with a
  /// process.
  void forsake() { next_ = prev_ = nullptr; }

 private:
  template <typename T, typename U>
  friend class IntrusiveList;
  ListHook* next_ = nullptr;
  ListHook* prev_ = nullptr;
};

/// Owns nothing. T derives from ListHook<Tag>.
template <typename T, typename Tag = void>
class IntrusiveList {
  using Hook = ListHook<Tag>;

 public:
  IntrusiveList() { root_.next_ = root_.prev_ = &root_; }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;
  ~IntrusiveList() {
    clear();
    root_.next_ = root_.prev_ = nullptr;
  }

  bool empty() const { return root_.next_ == &root_; }
  T* front() { return empty() ? nullptr : static_cast<T*>(root_.next_); }
  T* back() { return empty() ? nullptr : static_cast<T*>(root_.prev_); }
  const T* front() const { return empty() ? nullptr : static_cast<const T*>(root_.next_); }
  const T* back() const { return empty() ? nullptr : static_cast<const T*>(root_.prev_); }
  /// The element after `item`, nullptr at the end. Safe loops take it before they unlink `item`.
  T* next(T& item) {
    Hook* n = static_cast<Hook&>(item).next_;
    return n == &root_ ? nullptr : static_cast<T*>(n);
  }
  T* previous(T& item) {
    Hook* p = static_cast<Hook&>(item).prev_;
    return p == &root_ ? nullptr : static_cast<T*>(p);
  }

  /// An item that is in a list through the same hook moves: what says that it isn't may be older than the
  /// last step of a process that was killed.
  void push_back(T& item) {
    item.Hook::unlink();
    insert_between(item, *root_.prev_, root_);
  }
  void push_front(T& item) {
    item.Hook::unlink();
    insert_between(item, root_, *root_.next_);
  }
  /// `position` is in this list, and another item.
  void insert_after(T& position, T& item) {
    item.Hook::unlink();
    Hook& p = position;
    insert_between(item, p, *p.next_);
  }
  void insert_before(T& position, T& item) {
    item.Hook::unlink();
    Hook& p = position;
    insert_between(item, *p.prev_, p);
  }
  T* pop_front() {
    T* item = front();
    if (item != nullptr) static_cast<Hook&>(*item).unlink();
    return item;
  }
  T* pop_back() {
    T* item = back();
    if (item != nullptr) static_cast<Hook&>(*item).unlink();
    return item;
  }
  void remove(T& item) { static_cast<Hook&>(item).unlink(); }
  /// Calls visit(T&) for each. Of a list that a process was ending when it was killed there is none.
  template <typename Visit>
  void for_each(Visit&& visit) {
    for (T* item = front(); item != nullptr; item = next(*item)) visit(*item);
  }
  void clear() {
    while (pop_front() != nullptr) {
    }
  }
  /// Empty from here on; those that were in it are not told.
  void forsake() { root_.next_ = root_.prev_ = &root_; }
  /// Moves all of `other` to this list's end: in O(1), where no journal is kept.
  void splice_back(IntrusiveList& other) {
    if (other.empty()) return;
    if (list_journals != nullptr) {  // which knows only steps of one item
      while (T* item = other.front()) push_back(*item);
      return;
    }
    Hook* first = other.root_.next_;
    Hook* last = other.root_.prev_;
    first->prev_ = root_.prev_;
    root_.prev_->next_ = first;
    last->next_ = &root_;
    root_.prev_ = last;
    other.root_.next_ = other.root_.prev_ = &other.root_;
  }

  class iterator {
   public:
    iterator(Hook* at) : at_(at) {}  // NOLINT
    T& operator*() const { return *static_cast<T*>(at_); }
    T* operator->() const { return static_cast<T*>(at_); }
    iterator& operator++() {
      at_ = at_->next_;
      return *this;
    }
    bool operator!=(const iterator& other) const { return at_ != other.at_; }

   private:
    Hook* at_;
  };
  /// Range-for; the loop body must not unlink the element it stands on.
  iterator begin() { return iterator(root_.next_); }
  iterator end() { return iterator(&root_); }

 private:
  void insert_between(T& item, Hook& before, Hook& after) {
    Hook& hook = item;
    ListStep step(&hook, &before, &after, false);
    hook.prev_ = &before;
    hook.next_ = &after;
    before.next_ = &hook;
    after.prev_ = &hook;
  }
  Hook root_;
};

}  // namespace ustack
