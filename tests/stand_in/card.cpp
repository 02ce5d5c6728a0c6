// A stand-in for a CUDA card, for a torch that was built without CUDA; with -DAPPLE, for an MPS
// device, for a torch that was not built for macOS.
//
// Tensors on "cuda:0" or "mps:0" have memory of a kind of their own, which is counted and has an
// end. Each operation runs on the CPU, on the same memory, so that values are those of a CPU. What
// holds on a card holds here: tensors of two devices do not mix, random numbers come from the
// device's generator, and the host waits for what it reads. As on MPS, there is no float64 and not
// every operation, and a copy to the device of memory that is not pinned is not finished if it need
// not be waited for.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/detail/MPSHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#include <mutex>
#include <set>

#ifdef APPLE
#define KIND MPS
#define NAME "mps"
constexpr bool has_float64 = false;
#else
#define KIND CUDA
#define NAME "cuda"
constexpr bool has_float64 = true;
#endif

namespace {

using at::Tensor;
using Sizes = c10::SymIntArrayRef;

const c10::Device CARD{c10::DeviceType::KIND, 0};
const c10::DispatchKeySet KEYS{c10::DispatchKey::KIND};
constexpr int64_t CAPACITY = int64_t{2} << 30;

py::object* told = nullptr;  // what is called whenever the host waits

void host_waits(const std::string& what) {
  py::gil_scoped_acquire held;
  if (told != nullptr) (*told)(what);
}

// ---------------------------------------------------------------------------------------- memory

std::mutex lock;
int64_t allocated = 0, peak = 0;
std::set<const void*> pinned;

struct DeviceMemory : c10::Allocator {
  static constexpr size_t HEADER = 64;  // holds the size, and keeps the alignment

  static void release(void* p) {
    auto* start = static_cast<char*>(p) - HEADER;
    std::lock_guard<std::mutex> guard(lock);
    allocated -= *reinterpret_cast<int64_t*>(start);
    std::free(start);
  }
  c10::DataPtr allocate(size_t n) override {
    std::lock_guard<std::mutex> guard(lock);
    TORCH_CHECK_WITH(OutOfMemoryError, allocated + int64_t(n) <= CAPACITY, "out of memory.");
    auto* start = static_cast<char*>(std::aligned_alloc(HEADER, n / HEADER * HEADER + 2 * HEADER));
    *reinterpret_cast<int64_t*>(start) = int64_t(n);
    allocated += int64_t(n);
    peak = std::max(peak, allocated);
    return {start + HEADER, start + HEADER, &release, CARD};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t n) const override { std::memcpy(to, from, n); }
};

struct PinnedMemory : c10::Allocator {
  static void release(void* p) {
    std::lock_guard<std::mutex> guard(lock);
    pinned.erase(p);
    std::free(p);
  }
  c10::DataPtr allocate(size_t n) override {
    void* p = std::aligned_alloc(64, n / 64 * 64 + 64);
    std::lock_guard<std::mutex> guard(lock);
    pinned.insert(p);
    return {p, p, &release, c10::Device(at::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t n) const override { std::memcpy(to, from, n); }
};

DeviceMemory device_memory;
PinnedMemory pinned_memory;

// ----------------------------------------------------------------- the device and its generator

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, CARD); }
  c10::DeviceType type() const override { return CARD.type(); }
  c10::Device exchangeDevice(c10::Device) const override { return CARD; }
  c10::Device getDevice() const override { return CARD; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const override { return stream(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag)
      const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
};
#define REGISTER_GUARD(kind) C10_REGISTER_GUARD_IMPL(kind, Guard)
REGISTER_GUARD(KIND);

struct Generator : c10::GeneratorImpl {
  explicit Generator(at::Generator inner) : GeneratorImpl(CARD, KEYS), inner(std::move(inner)) {}
  void set_current_seed(uint64_t seed) override { inner.set_current_seed(seed); }
  void set_offset(uint64_t) override {}
  uint64_t get_offset() const override { return 0; }
  uint64_t current_seed() const override { return inner.current_seed(); }
  uint64_t seed() override { return inner.seed(); }
  void set_state(const c10::TensorImpl& s) override { inner.unsafeGetGeneratorImpl()->set_state(s); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return inner.unsafeGetGeneratorImpl()->get_state();
  }
  c10::intrusive_ptr<c10::GeneratorImpl> graphsafe_get_state() const override {
    return c10::make_intrusive<Generator>(inner);  // another one that shares the state
  }
  Generator* clone_impl() const override { return new Generator(inner.clone()); }
  at::Generator inner;
};

at::Generator new_generator() {
  return at::make_generator<Generator>(at::detail::createCPUGenerator());
}

const at::Generator& default_generator() {
  static const at::Generator found = new_generator();
  return found;
}

at::Generator on_cpu(const at::Generator& g) {
  TORCH_CHECK(g.device() == CARD, "Expected a '" NAME "' device type for generator but found 'cpu'");
  return static_cast<Generator*>(g.unsafeGetGeneratorImpl())->inner;
}

}  // namespace

namespace at {

#ifdef APPLE
using Interface = MPSHooksInterface;
#else
using Interface = CUDAHooksInterface;
#endif

struct Hooks : Interface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  Device getDeviceFromPtr(void*) const override { return CARD; }
  const Generator& getDefaultGenerator(DeviceIndex) const override { return default_generator(); }
  Generator getNewGenerator(DeviceIndex) const override { return new_generator(); }
  Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  bool isPinnedPtr(const void* p) const override {
    std::lock_guard<std::mutex> guard(lock);
    return pinned.count(p) > 0;
  }
};

// created by its name when torch first asks for it, so that this file is loaded before torch
#ifdef APPLE
struct MPSHooks : Hooks {
  bool hasMPS() const override { return true; }
  bool isOnMacOSorNewer(unsigned, unsigned) const override { return true; }
  void deviceSynchronize() const override {}
  void emptyCache() const override {}
  size_t getCurrentAllocatedMemory() const override { return allocated; }
  size_t getDriverAllocatedMemory() const override { return allocated; }
  size_t getRecommendedMaxMemory() const override { return CAPACITY; }
  Allocator* getMPSDeviceAllocator() const override { return &device_memory; }
};
REGISTER_MPS_HOOKS(MPSHooks);
#else
struct CUDAHooks : Hooks {
  explicit CUDAHooks(CUDAHooksArgs) {}
  bool hasCUDA() const override { return true; }
  int getNumGPUs() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  void deviceSynchronize(DeviceIndex) const override {}
  Allocator* getCUDADeviceAllocator() const override { return &device_memory; }
};
REGISTER_CUDA_HOOKS(CUDAHooks);
#endif

}  // namespace at

namespace {

// ------------------------------------------------------------- operations on memory of the device

bool on_card(const Tensor& t) { return t.defined() && t.device() == CARD; }

// the memory of a tensor, as a tensor of the CPU
Tensor seen(const Tensor& t) {
  auto* kept = new c10::Storage(t.storage());
  auto release = [](void* p) { delete static_cast<c10::Storage*>(p); };
  c10::DataPtr data(kept->mutable_data(), kept, release, c10::Device(at::kCPU));
  c10::Storage storage(c10::Storage::use_byte_size_t(), kept->nbytes(), std::move(data),
                       c10::GetAllocator(at::kCPU), /*resizable=*/true);
  auto out = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), t.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
  if (t.is_conj()) out._set_conj(true);
  if (t.is_neg()) out._set_neg(true);
  return out;
}

void require_supported(at::ScalarType dtype) {
  const bool is_double = dtype == at::kDouble || dtype == at::kComplexDouble;
  TORCH_CHECK_TYPE(has_float64 || !is_double,
                   "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't "
                   "support float64. Please use float32 instead.");
}

Tensor empty(Sizes size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<at::Device>, std::optional<bool>,
             std::optional<at::MemoryFormat> format) {
  require_supported(c10::dtype_or_default(dtype));
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &device_memory, KEYS,
                                   c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(Sizes size, Sizes stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  require_supported(c10::dtype_or_default(dtype));
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size),
                                           C10_AS_INTARRAYREF_SLOW(stride), &device_memory, KEYS,
                                           c10::dtype_or_default(dtype));
}

Tensor to_card(const Tensor& t) {
  require_supported(t.scalar_type());
  Tensor out = at::detail::empty_strided_generic(t.sizes(), t.strides(), &device_memory, KEYS,
                                                 t.scalar_type());
  seen(out).copy_(t);
  return out;
}

Tensor& copy_(Tensor& self, const Tensor& from, bool non_blocking) {
  if (on_card(self) != on_card(from) && !non_blocking) host_waits("copy_");
  if (on_card(from) && self.scalar_type() != from.scalar_type())
    require_supported(self.scalar_type());  // the device converts, and then copies
  Tensor to = on_card(self) ? seen(self) : self;
  if (!has_float64 && non_blocking && on_card(self) && !on_card(from) && !from.is_pinned()) {
    to.view(at::kByte).fill_(255);  // unfinished
    return self;
  }
  to.copy_(on_card(from) ? seen(from) : from);
  return self;
}

Tensor copy_from(const Tensor& self, const Tensor& to, bool non_blocking) {
  Tensor out = to;
  return copy_(out, self, non_blocking);
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& to) {
  to.resize_(self.sizes());
  return copy_from(self, to, false);
}

const Tensor& resize_(const Tensor& self, Sizes size, std::optional<at::MemoryFormat>) {
  const auto sizes = C10_AS_INTARRAYREF_SLOW(size);
  const auto& storage = self.storage();
  const size_t needed = (c10::multiply_integers(sizes) + self.storage_offset()) * self.itemsize();
  if (needed > storage.nbytes()) {
    auto fresh = device_memory.allocate(needed);
    std::memcpy(fresh.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr_noswap(std::move(fresh));
    storage.set_nbytes(needed);
  }
  self.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return self;
}

at::Scalar local_scalar(const Tensor& self) {
  host_waits("item");
  return seen(self).item();
}

Tensor as_strided(const Tensor& self, Sizes size, Sizes stride, std::optional<c10::SymInt> offset) {
  auto out = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(self.storage()), self.key_set(), self.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
      offset.has_value() ? offset->expect_int() : self.storage_offset());
  return out;
}

Tensor& set_strided(Tensor& self, at::Storage source, c10::SymInt offset, Sizes size,
                    Sizes stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(source));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.expect_int());
  return self;
}

Tensor& set_storage(Tensor& self, at::Storage source) {
  const c10::SymInt size = int64_t(source.nbytes() / self.itemsize()), one = 1;
  return set_strided(self, std::move(source), 0, size, one);
}

Tensor& set_tensor(Tensor& self, const Tensor& source) {
  return set_strided(self, c10::Storage(source.storage()), source.sym_storage_offset(),
                     source.sym_sizes(), source.sym_strides());
}

// -------------------------------------------------------------------------- all other operations

// the size or the success of their results is read by the host
const std::set<std::string> WAITING = {
    "aten::nonzero", "aten::masked_select", "aten::equal", "aten::bincount", "aten::_unique2",
    "aten::unique_dim", "aten::unique_consecutive", "aten::repeat_interleave.Tensor",
    "aten::_linalg_svd", "aten::_linalg_eigh", "aten::linalg_eig", "aten::linalg_lstsq",
    "aten::_linalg_check_errors"};

std::set<std::string> refused;  // operations that the device does not have

// replaces a tensor, or each of a list of tensors; false for anything else
template <typename Change>
bool change_tensors(c10::IValue& value, Change change) {
  if (value.isTensor()) {
    value = change(value.toTensor());
  } else if (value.isTensorList()) {
    auto list = value.toTensorVector();
    for (auto& t : list) t = change(t);
    value = c10::List<Tensor>(list);
  } else {
    return false;
  }
  return true;
}

class Call {
 public:
  Call(const c10::OperatorHandle& op, torch::jit::Stack* stack)
      : op(op), stack(stack), name(op.schema().name()) {
    const auto& overload = op.schema().overload_name();
    if (!overload.empty()) name += "." + overload;
  }

  void run() {
    const auto& arguments = op.schema().arguments();
    const auto first = stack->size() - arguments.size();
    for (size_t i = 0; i < arguments.size(); i++)
      to_cpu((*stack)[first + i], arguments[i].type()->str() == "Generator?");
    TORCH_CHECK(!(found_cpu && !pairs.empty()),
                "Expected all tensors to be on the same device, but found at least two devices, "
                NAME ":0 and cpu! (", name, ")");
    TORCH_CHECK_NOT_IMPLEMENTED(refused.count(name) == 0, "The operator '", name,
                                "' is not currently implemented for the MPS device.");
    if (WAITING.count(name) > 0) host_waits(name);
    name == "aten::native_dropout" ? with_generator_of_card() : op.callBoxed(stack);
    const auto returned = op.schema().returns().size();
    for (size_t i = stack->size() - returned; i < stack->size(); i++)
      change_tensors((*stack)[i], [this](const Tensor& t) { return one_to_card(t); });
  }

 private:
  void to_cpu(c10::IValue& value, bool is_generator) {
    if (change_tensors(value, [this](const Tensor& t) { return one_to_cpu(t); })) return;
    if (value.isOptionalTensorList()) {
      value = indices_to_cpu(value.toOptionalTensorList());
    } else if (value.isDevice() && value.toDevice().type() == CARD.type()) {
      value = c10::Device(at::kCPU);
      is_asked_for = true;
    } else if (is_generator) {
      value = on_cpu(value.isNone() ? default_generator() : value.toGenerator());
    }
  }

  Tensor one_to_cpu(const Tensor& t) {
    if (on_card(t)) return pairs.emplace_back(t, seen(t)).second;
    found_cpu |= t.defined() && t.dim() > 0;  // numbers may come from any device
    return t;
  }

  // indices may lie on the CPU, from where they are copied
  c10::List<std::optional<Tensor>> indices_to_cpu(const c10::List<std::optional<Tensor>>& given) {
    c10::List<std::optional<Tensor>> out;
    for (std::optional<Tensor> each : given) {
      if (each.has_value() && each->defined()) {
        if (on_card(*each)) each = one_to_cpu(*each);
        else host_waits("indices on the CPU");
      }
      out.push_back(each);
    }
    return out;
  }

  void with_generator_of_card() {  // for an operation that names no generator
    auto cpu = at::detail::getDefaultCPUGenerator(), card = on_cpu(default_generator());
    const auto held = cpu.get_state();
    cpu.set_state(card.get_state());
    op.callBoxed(stack);
    card.set_state(cpu.get_state());
    cpu.set_state(held);
  }

  Tensor one_to_card(const Tensor& t) {
    if (!t.defined() || (pairs.empty() && !is_asked_for)) return t;
    for (auto& [card, cpu] : pairs) {
      if (t.is_same(cpu)) {
        if (!card.sizes().equals(t.sizes())) {  // the operation has given its result a size
          card.resize_(t.sizes());
          seen(card).copy_(t);
        }
        return card;
      }
    }
    for (auto& [card, cpu] : pairs)
      if (t.storage().is_alias_of(cpu.storage()))
        return as_strided(card, t.sym_sizes(), t.sym_strides(), t.sym_storage_offset());
    return to_card(t);
  }

  const c10::OperatorHandle& op;
  torch::jit::Stack* stack;
  std::string name;
  std::vector<std::pair<Tensor, Tensor>> pairs;  // arguments, and how the CPU sees them
  bool found_cpu = false, is_asked_for = false;
};

void run(const c10::OperatorHandle& op, torch::jit::Stack* stack) { Call(op, stack).run(); }

}  // namespace

TORCH_LIBRARY_IMPL(_, KIND, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run>()); }

TORCH_LIBRARY_IMPL(aten, KIND, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("copy_", copy_);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("resize_", resize_);
  m.impl("_local_scalar_dense", local_scalar);
  m.impl("as_strided", as_strided);
  m.impl("set_.source_Storage", set_storage);
  m.impl("set_.source_Storage_storage_offset", set_strided);
  m.impl("set_.source_Tensor", set_tensor);
  // torch itself would look for kernels of a card
  for (auto name : {"convolution", "convolution_backward", "native_group_norm"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run>());
}

#ifdef APPLE
Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value,
                 const std::optional<Tensor>& mask, double dropout, bool is_causal,
                 std::optional<double> scale, bool enable_gqa) {
  std::optional<Tensor> added = mask;
  if (mask.has_value() && mask->scalar_type() == at::kBool)
    added = at::zeros_like(*mask, query.options()).masked_fill_(mask->logical_not(), -INFINITY);
  return std::get<0>(at::_scaled_dot_product_attention_math(query, key, value, added, dropout,
                                                            is_causal, {}, scale, enable_gqa));
}

// for which torch would ask for a kernel of the device
TORCH_LIBRARY_IMPL(aten, MPS, m) { m.impl("scaled_dot_product_attention", attention); }
TORCH_LIBRARY_IMPL(aten, AutogradMPS, m) { m.impl("scaled_dot_product_attention", attention); }
#endif

PYBIND11_MODULE(card, m) {
  c10::SetAllocator(CARD.type(), &device_memory);
  m.attr("capacity") = CAPACITY;
  m.def("allocated", [] { return allocated; });
  m.def("peak", [] { return peak; });
  m.def("forget_peak", [] { peak = allocated; });
  m.def("default_generator", [] { return default_generator(); });
  m.def("refuse", [](std::set<std::string> names) { refused = std::move(names); });
  m.def("tell_of_waits", [](py::object call) { told = new py::object(std::move(call)); });
}
